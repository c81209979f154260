"""`folkmoot demo`: three hospitals, real data, four analyses, one command.

It starts a server and three nodes on this machine, brings the hospitals together by votes and invitations, and runs the analyses that the
product exists for, sealed, beside the pooled truth. Everything it makes lies in one folder, which goes away at the end.
"""

from folkmoot.cli.demo.command import demo

__all__ = ["demo"]
