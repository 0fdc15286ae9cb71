"""Charts as inline SVG, drawn here so that the page needs no script and no network to show them.

Each chart is drawn twice, wide and narrow, and the style sheet shows the one that fits: text in a
drawing that merely shrank could not be read on a phone.
"""
