"""What a server keeps besides tasks and ledgers: accounts, users, roles, studies, the audit trail, usage; and the user's own account.

All of it is the server's word. Who belongs to a collaboration, and whose keys count, is never decided here.
"""
