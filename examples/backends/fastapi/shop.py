"""The backend of a shop: uvicorn shop:app"""

import os

import fanline
from fanline.hooks import BadSignatureError, read_webhook
from fanline.management import ManagementClient
from fastapi import FastAPI, HTTPException, Request

app = FastAPI()
live = ManagementClient()


@app.post("/orders/{order}/pay")
async def pay(order: int, user: str) -> dict[str, int]:
    await fanline.publish("project:shop", {"order": order}, event="order_paid")
    await fanline.notify(user, "Thank you", f"Order {order} is paid.", level="success")
    return {"paid": order}


@app.get("/online")
def online() -> list[str]:  # not `async`: FastAPI calls it in a thread, where it may wait
    return sorted({each["user_id"] for each in live.items("/connections", channel="project:shop")})


@app.post("/fanline/events")
async def hear(request: Request) -> None:
    try:
        events = read_webhook(await request.body(), request.headers, os.environ["WEBHOOK_SECRET"])
    except BadSignatureError as error:
        raise HTTPException(401, str(error)) from None
    for event in events:
        await fanline.publish(f"user:{event.data['user_id']}", {"text": "welcome"}, event="greeting")
