"""Real HTTP servers that answer as the clouds' price APIs do: the same documents, paging and errors."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

GIB = 1024


class PriceServer:
    """Serves AWS's Price List, Google's Billing Catalog and Azure's Retail Prices on one port of this machine."""

    def __init__(self):
        self.requests = []
        self.failures = []  # statuses to answer next, before anything else
        self.aws = {}  # region -> Price List documents
        self.gcp = []  # SKUs
        self.azure = []  # items
        self.page_size = 2
        self.link_host = None
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.answer(b"")

            def do_POST(self):
                self.answer(self.rfile.read(int(self.headers["Content-Length"])))

            def answer(self, body):
                server.requests.append((self.command, self.path, dict(self.headers), body))
                status, document = server.respond(self.path, self.headers, body)
                data = document if isinstance(document, bytes) else json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()

    def respond(self, path, headers, body):
        if self.failures:
            return self.failures.pop(0), {"error": {"message": "try later"}}
        query = {key: values[0] for key, values in parse_qs(urlsplit(path).query).items()}
        if headers.get("X-Amz-Target") == "AWSPriceListService.GetProducts":
            return self.price_list(json.loads(body))
        if path.startswith("/v1/services/6F81-5844-456A/skus"):
            return self.billing_catalog(query, headers)
        if path.startswith("/api/retail/prices"):
            return self.retail_prices(query)
        return 404, {"error": {"message": "no such path"}}

    def page(self, items, start):
        return items[start : start + self.page_size], start + self.page_size

    def price_list(self, asked):
        region = next(f["Value"] for f in asked["Filters"] if f["Field"] == "regionCode")
        found, after = self.page(self.aws.get(region, []), int(asked.get("NextToken") or 0))
        more = {"NextToken": str(after)} if after < len(self.aws.get(region, [])) else {}
        return 200, {"FormatVersion": "aws_v1", "PriceList": [json.dumps(each) for each in found]} | more

    def billing_catalog(self, query, headers):
        if headers.get("X-Goog-Api-Key") != "a-key":
            return 403, {"error": {"code": 403, "message": "The request is missing a valid API key."}}
        found, after = self.page(self.gcp, int(query.get("pageToken") or 0))
        return 200, {"skus": found, "nextPageToken": str(after) if after < len(self.gcp) else ""}

    def retail_prices(self, query):
        size = query["$filter"].split("armSkuName eq '")[1].rstrip("'")
        items = [item for item in self.azure if item["armSkuName"] == size]
        found, after = self.page(items, int(query.get("$skip") or 0))
        link = f"{self.link_host or self.url}/api/retail/prices?$filter=armSkuName eq '{size}'&$skip={after}"
        return 200, {"BillingCurrency": "USD", "Items": found, "NextPageLink": link if after < len(items) else None}


def aws_product(instance_type, usd, unit="Hrs"):
    """A document of the Price List as `get_products` returns it."""
    sku = f"SKU{instance_type}"
    dimension = {"unit": unit, "pricePerUnit": {"USD": f"{usd:.10f}"}, "beginRange": "0", "endRange": "Inf"}
    return {
        "product": {"productFamily": "Compute Instance", "sku": sku, "attributes": {"instanceType": instance_type}},
        "serviceCode": "AmazonEC2",
        "terms": {"OnDemand": {f"{sku}.JRTCKXETXF": {"priceDimensions": {f"{sku}.JRTCKXETXF.6YS6EN2CT7": dimension}}}},
    }


def gcp_sku(description, usd, regions, *, usage="OnDemand", unit="h", family="Compute", free_tier=False):
    """A SKU of the Billing Catalog."""
    whole = int(usd)
    rates = (
        [{"startUsageAmount": 0, "unitPrice": {"currencyCode": "USD", "units": "0", "nanos": 0}}] if free_tier else []
    )
    rates.append(
        {
            "startUsageAmount": 0,
            "unitPrice": {"currencyCode": "USD", "units": str(whole), "nanos": round((usd - whole) * 1e9)},
        }
    )
    return {
        "name": f"services/6F81-5844-456A/skus/{abs(hash((description, usage))):X}",
        "description": description,
        "category": {"serviceDisplayName": "Compute Engine", "resourceFamily": family, "usageType": usage},
        "serviceRegions": regions,
        "pricingInfo": [{"pricingExpression": {"usageUnit": unit, "tieredRates": rates}}],
    }


def azure_item(size, region, usd, *, sku=None, product="Virtual Machines Series", unit="1 Hour", kind="Consumption"):
    """An item of the Retail Prices API."""
    return {
        "currencyCode": "USD",
        "retailPrice": usd,
        "unitPrice": usd,
        "armRegionName": region,
        "productName": product,
        "skuName": sku or size.removeprefix("Standard_").replace("_", " "),
        "serviceName": "Virtual Machines",
        "unitOfMeasure": unit,
        "type": kind,
        "armSkuName": size,
    }
