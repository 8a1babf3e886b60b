"""Spile over HTTP: the application, what it is given, and the server it runs on."""

from broker.http.application import Application, create_app
from broker.http.server import HttpServer, serve_http
from broker.http.services import Access, HttpLimits, OpenAccess, Services

__all__ = ["Access", "Application", "HttpLimits", "HttpServer", "OpenAccess", "Services", "create_app", "serve_http"]
