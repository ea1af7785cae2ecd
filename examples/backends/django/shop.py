"""The backend of a shop in one file: python shop.py runserver 8000"""

import os
import sys

import fanline
from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from fanline.hooks import BadSignatureError, read_webhook
from fanline.management import ManagementClient

settings.configure(SECRET_KEY=os.urandom(32).hex(), ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1"])
live = ManagementClient()


@csrf_exempt
def pay(request: HttpRequest, order: int) -> JsonResponse:
    fanline.publish("project:shop", {"order": order}, event="order_paid").wait(10)
    fanline.notify(request.GET["user"], "Thank you", f"Order {order} is paid.", level="success").wait(10)
    return JsonResponse({"paid": order})


def online(request: HttpRequest) -> JsonResponse:
    return JsonResponse(
        sorted({each["user_id"] for each in live.items("/connections", channel="project:shop")}), safe=False
    )


@csrf_exempt
def hear(request: HttpRequest) -> HttpResponse:
    try:
        events = read_webhook(request.body, request.headers, os.environ["WEBHOOK_SECRET"])
    except BadSignatureError as error:
        return HttpResponse(error, status=401)
    for event in events:
        fanline.publish(f"user:{event.data['user_id']}", {"text": "welcome"}, event="greeting").wait(10)
    return HttpResponse(status=204)


urlpatterns = [path("orders/<int:order>/pay", pay), path("online", online), path("fanline/events", hear)]
if __name__ == "__main__":
    execute_from_command_line(sys.argv)
