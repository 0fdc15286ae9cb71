"""Charts as inline SVG, which need neither a script nor the network.

Each chart is drawn twice, wide and narrow, and the style sheet shows the one that fits: in a chart
that only shrinks, the text would be too small on a phone.
"""
