"""What the gateway's own handler serves.

`forward` decides by the path as it was sent; Django's patterns see it decoded.
"""

from django.urls import path, re_path

from proxy import views

app_name = "proxy"
urlpatterns = [
    path("health", views.health, name="health"),
    re_path(r"^(?:api/hello)?$", views.probe, name="probe"),
    re_path(r"", views.forward, name="forward"),
]
