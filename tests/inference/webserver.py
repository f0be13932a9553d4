"""A real HTTP server on this machine, whose pages are functions."""

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Site:
    """pages   path without its query -> bytes, or a function of the request's handler
    asked   the paths that were asked for, in the order of their arrival
    headers the headers of the last request
    closing set when the server ends, for pages that take their time
    """

    def __init__(self, pages):
        self.pages = pages
        self.asked = []
        self.headers = {}
        self.closing = threading.Event()
        self.port = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"


@contextlib.contextmanager
def serving(pages, tls=None):
    """The Site, for the length of the block; under https with an SSLContext."""
    site = Site(pages)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        closing = site.closing

        def do_GET(self):
            site.asked.append(self.path)
            site.headers = dict(self.headers)
            page = site.pages.get(self.path.partition("?")[0])
            with contextlib.suppress(ConnectionError):
                if page is None:
                    answer(404)(self)
                elif callable(page):
                    page(self)
                else:
                    answer(200, page)(self)

        def log_message(self, *args):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request, client_address):
            pass  # clients hang up on purpose here

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    site.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield site
    finally:
        site.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


def answer(status, body=b"", **headers):
    """A page with this status, body and headers; `_` in a header's name is `-`."""

    def page(handler):
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return page


def redirect(to):
    return answer(302, b"over there", Location=to)


def in_turn(*pages):
    """The pages one after the other, a request each; the last one from then on."""
    left = list(pages)

    def page(handler):
        now = left.pop(0) if len(left) > 1 else left[0]
        now(handler)

    return page


def dripping(head):
    """Sends `head` at once, and then a byte every few milliseconds until the server ends."""

    def page(handler):
        handler.close_connection = True
        handler.wfile.write(head)
        while not handler.closing.wait(0.02):
            handler.wfile.write(b"x")
            handler.wfile.flush()

    return page


def hang_up(handler):
    """Ends the connection without a word."""
    handler.close_connection = True
    handler.connection.close()
