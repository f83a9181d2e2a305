"""An application with several clients of redis-py, each with a pool of its own: every client writes and reads, one after the
other, until standard input ends. Then one line of JSON: how many commands were answered, how often which error came, how
many connections were told of a move. Usage: pool.py PORT CLIENTS RETRIES."""

import collections
import json
import sys
import threading
import time

import redis
from redis.backoff import ExponentialBackoff
from redis.maint_notifications import MaintNotificationsConfig, MaintNotificationsPoolHandler
from redis.retry import Retry

PORT, CLIENTS, RETRIES = (int(arg) for arg in sys.argv[1:4])
stop = threading.Event()
lock = threading.Lock()
told = collections.Counter()
answered = collections.Counter()
errors = collections.Counter()

handle = MaintNotificationsPoolHandler.handle_notification


def handle_and_count(handler, notification):
    with lock:
        told[type(notification).__name__] += 1
    return handle(handler, notification)


MaintNotificationsPoolHandler.handle_notification = handle_and_count


def work(which):
    client = redis.Redis(
        port=PORT,
        protocol=3,
        socket_timeout=10,
        retry=Retry(ExponentialBackoff(cap=0.5, base=0.01), RETRIES),
        maint_notifications_config=MaintNotificationsConfig(enabled="auto"),
    )
    for number in range(1_000_000_000):
        if stop.is_set():
            break
        for name, say in (
            ("write", lambda: client.rpush(f"log:{which}", number)),
            ("read", lambda: client.lindex(f"log:{which}", -1)),
        ):
            try:
                say()
                answered[which, name] += 1
            except Exception as error:  # whatever an application would see
                with lock:
                    errors[f"{name}: {type(error).__name__}: {error}"] += 1
        time.sleep(0.002)
    client.close()


threads = [threading.Thread(target=work, args=(which,)) for which in range(CLIENTS)]
for thread in threads:
    thread.start()
print("started", flush=True)
sys.stdin.read()
stop.set()
for thread in threads:
    thread.join()
print(json.dumps({"answered": sum(answered.values()), "errors": errors, "told": told}), flush=True)
