"""What stands in a namespace, told so that two namespaces with the same story compare as equal."""

import json
from typing import Any

from shop import Shop

INJECTED = "servicelink.dev/injected"
Body = dict[str, Any]


def snapshot(shop: Shop, *others: Shop) -> Body:
    """Answer all that stands, without what is another's each time: namespaces, keys, UIDs, versions, times.

    Of `others` are the namespaces that are also named in what stands.
    """
    text = shop.kubectl("get", "slink,secret,configmap,deployment", "--output=json")
    for number, one in enumerate((shop, *others)):
        text = text.replace(one.namespace, f"NAMESPACE-{number}")
    found: Body = {}
    for body in json.loads(text)["items"]:
        name = f"{body['kind']}/{body['metadata']['name']}"
        if name != "ConfigMap/kube-root-ca.crt":
            found[name] = describe(body)
    return found


def describe(body: Body) -> Any:
    marks = body["metadata"].get("annotations", {})
    match body["kind"]:
        case "ServiceLink":
            said = [(one["type"], one["status"], one["reason"], one["message"]) for one in body["status"]["conditions"]]
            return {"conditions": said, "endpoint": body["status"].get("endpoint")}
        case "Secret":
            return {"type": body["type"], "keys": sorted(body["data"]), "marks": sorted(marks)}
        case "ConfigMap":
            entries = [entry for text in body["data"].values() for entry in json.loads(text)["links"]]
            # Not by link: one that was made anew would hide what is left of the one before.
            return sorted((entry["link"], entry["port"], entry["protocol"], len(entry["keys"])) for entry in entries)
        case _:
            record = json.loads(marks.get(INJECTED, "{}")).get("parts", {})
            return {"template": by_name(body["spec"]["template"]["spec"]), "record": sorted(record)}


def by_name(pod: Body) -> Body:
    """Answer a template whose lists are in order: links come in any."""
    (container,) = pod["containers"]
    return {
        "volumes": sorted(json.dumps(one, sort_keys=True) for one in pod.get("volumes", ())),
        "mounts": sorted(one["mountPath"] for one in container.get("volumeMounts", ())),
        "variables": sorted((one["name"], one["value"]) for one in container.get("env", ())),
    }
