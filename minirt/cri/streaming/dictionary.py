"""The dictionary that both ends of SPDY/3 begin their header compression with: 1423 bytes, Adler-32 0xe3c6a7c2.

Source: SPDY draft 3, section 2.6.10.1, "Compression"
"""

_NAMES = """
options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow
authorization cache-control connection content-base content-encoding content-language content-length content-location
content-md5 content-range content-type date etag expect expires from host if-match if-modified-since if-none-match
if-range if-unmodified-since last-modified location max-forwards pragma proxy-authenticate proxy-authorization range
referer retry-after server te trailer transfer-encoding upgrade user-agent vary via warning www-authenticate method get
status|200 OK|version HTTP/1.1 url public set-cookie keep-alive origin
"""
_NUMBERS = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden"
    "404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
)
_VALUES = (
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,"
    "publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


def _words() -> list[str]:
    """Return the words that are in it with their lengths; the bar stands where a space does not part two."""
    return [word for line in _NAMES.split("|") for word in ([line] if line == "200 OK" else line.split())]


DICTIONARY = b"".join(len(word).to_bytes(4, "big") + word.encode() for word in _words()) + (_NUMBERS + _VALUES).encode()
