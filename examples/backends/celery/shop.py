"""The jobs of a shop: celery -A shop worker"""

import os

import fanline
from celery import Celery
from fanline.hooks import Hooks
from fanline.management import ManagementClient

app = Celery("shop", broker=os.environ.get("BROKER", "redis://localhost"))
live = ManagementClient()


@app.task
def pay(order: int, user: str) -> None:
    fanline.publish("project:shop", {"order": order}, event="order_paid").wait(10)
    fanline.notify(user, "Thank you", f"Order {order} is paid.", level="success").wait(10)


@app.task
def report_online() -> None:
    users = sorted({each["user_id"] for each in live.items("/connections", channel="project:shop")})
    fanline.publish("project:shop", {"users": users}, event="online").wait(10)


@app.task
def greet(user: str) -> None:
    fanline.publish(f"user:{user}", {"text": "welcome"}, event="greeting").wait(10)


def setup(hooks: Hooks) -> None:
    """Runs in the server's process of handlers, and turns events of the server into jobs."""
    hooks.on("user_connected", lambda event: greet.delay(event.data["user_id"]))
