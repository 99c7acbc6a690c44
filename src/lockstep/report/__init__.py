"""The report of a sweep: one HTML file, made from the store alone.

- `page`: the file and its template, `page.html.j2`; start reading here.
- `charts`: its interactive figures.
- `wording`: a sweep in words.
"""
