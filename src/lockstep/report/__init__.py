"""The report of a sweep: one HTML file, made from the store alone.

- `page`: the file and its template, `page.html.j2`; start reading here. `stored`: the one that the store has.
- `charts`: interactive figures; `curves`: learning curves; `choices`, `importance`: which choice mattered.
- `columns`: which columns of a table the best run's accuracy rests on.
- `evidence`: which differences are more than chance, and an ensemble; its template is `evidence.html.j2`.
- `comparison`: two sweeps side by side; `formats`: the leaderboard as a table for a paper.
- `wording`: the sentence that sums a sweep up, and formatted values.
"""
