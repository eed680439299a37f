"""What users run today: gallery-dl's `exec` post-processor starts this for every file, new or already there.

`exec_hook.py QUEUE SOURCE_ID FILENAME` opens a connection, posts one event, and ends.
"""

import json
import os
import sys

import pika

queue, source_id, filename = sys.argv[1:]
port = int(os.environ.get("TEST_RABBITMQ_PORT", "5672"))
connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port))
connection.channel().basic_publish(
    "",
    queue,
    json.dumps({"source_id": int(source_id), "filename": filename}).encode(),
    pika.BasicProperties(content_type="application/json", delivery_mode=2),
)
connection.close()
