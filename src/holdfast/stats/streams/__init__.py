"""Evidence on streams: rows arrive, and one may stop whenever one likes."""
