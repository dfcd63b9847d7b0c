"""Write a message into an outbox for each line read, and say when it was committed."""

import sqlite3
import sys
import time
from contextlib import closing

from tests.processes import say
from zmesh import outbox

with closing(sqlite3.connect(sys.argv[1])) as connection:
    outbox.create(connection)
    connection.commit()
    say("ready")
    for line in sys.stdin:
        outbox.enqueue(connection, line.strip(), to="printer")
        connection.commit()
        say(time.time())
