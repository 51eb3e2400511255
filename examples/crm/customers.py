"""An MCP server over a database: finds customers by e-mail. Falsework starts it by itself."""

import sqlite3
import tempfile
from pathlib import Path
from typing import Any

from mcp.server import MCPServer

DATABASE = Path(tempfile.gettempdir()) / "falsework-crm.db"
CUSTOMERS = [("ada@example.com", "Ada", "lead"), ("bob@example.com", "Bob", "qualified")]

server = MCPServer("customers")


def connected() -> sqlite3.Connection:
    """Return the database, made and filled if need be."""
    database = sqlite3.connect(DATABASE)
    database.execute("create table if not exists customer (email primary key, name, stage)")
    database.executemany("insert or ignore into customer values (?, ?, ?)", CUSTOMERS)
    database.commit()
    return database


def reset() -> None:
    """Put every customer back where it stood at the beginning."""
    database = connected()
    database.executemany("insert or replace into customer values (?, ?, ?)", CUSTOMERS)
    database.commit()
    database.close()


@server.tool()
def find(email: str) -> dict[str, Any]:
    """Find a customer by e-mail."""
    database = connected()
    row = database.execute("select name, stage from customer where email = ?", [email]).fetchone()
    database.close()
    return {
        "email": email,
        "found": row is not None,
        "name": row and row[0],
        "stage": row and row[1],
    }


if __name__ == "__main__":
    server.run("stdio")
