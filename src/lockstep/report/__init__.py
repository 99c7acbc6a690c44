"""The report of a sweep: one HTML file, made from the store alone.

- `page`: the file and its template, `page.html.j2`; start reading here.
- `charts`: interactive figures; `curves`: the learning curves; `choices`: which choice mattered.
- `evidence`: which differences are more than chance, and an ensemble; its template is `evidence.html.j2`.
- `wording`: the sentence that sums a sweep up, and formatted values.
"""
