"""Entra ID as the credentials of azure-identity meet it: discovery, tokens, and the managed identity of a machine."""

from __future__ import annotations

import base64
import json
import time
import uuid
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from edgepack_assets_tests.azure.http import Request, Response, answer

LOGIN = "login.microsoftonline.com"
IMDS = "169.254.169.254"


@dataclass
class Principal:
    """Who may ask for tokens, by which proof, and what roles they have (names of Azure's built-in roles)."""

    client_id: str
    roles: set[str]
    secret: str = ""
    certificate: x509.Certificate | None = None
    federated_token: str = ""
    managed: bool = False
    expired_secret: bool = False


@dataclass
class Identity:
    """One tenant and its principals."""

    tenant_id: str
    principals: dict[str, Principal] = field(default_factory=dict)
    token_lifetime: float = 3600.0
    tokens: list[str] = field(default_factory=list)
    asked_for: list[str | None] = field(default_factory=list)
    """The client ids of the managed identities that were asked for."""

    def add(self, principal: Principal) -> Principal:
        self.principals[principal.client_id] = principal
        return principal

    def reset(self, principal: Principal) -> None:
        """Only this principal, with the roles it was made with; tokens that were given stay good."""
        self.principals = {principal.client_id: principal}
        principal.roles = {"AzureML Data Scientist", "Storage Blob Data Contributor"}
        principal.expired_secret = False
        self.token_lifetime = 3600.0
        self.asked_for.clear()

    def of(self, authorization: str) -> tuple[Principal | None, str]:
        """(who a Bearer token names, or None if it is missing, expired or forged; its audience)."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or token not in self.tokens:
            return None, ""
        claims = _claims(token)
        if claims["exp"] < time.time():
            return None, ""
        return self.principals.get(claims["appid"]), claims["aud"]

    def login(self, request: Request) -> Response:
        """login.microsoftonline.com"""
        parts = request.path.strip("/").split("/")
        if request.path == "/common/discovery/instance":
            return answer(200, self._instance())
        if parts[0] != self.tenant_id:
            return self._refusal(400, "invalid_tenant", f"AADSTS90002: Tenant '{parts[0]}' not found.")
        if request.path.endswith("/.well-known/openid-configuration"):
            base = f"https://{request.host}/{self.tenant_id}"
            return answer(
                200,
                {
                    "token_endpoint": f"{base}/oauth2/v2.0/token",
                    "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                    "device_authorization_endpoint": f"{base}/oauth2/v2.0/devicecode",
                    "issuer": f"{base}/v2.0",
                    "tenant_region_scope": "EU",
                    "cloud_instance_name": "microsoftonline.com",
                },
            )
        if request.path.endswith("/oauth2/v2.0/token"):
            return self._token({k: v[0] for k, v in parse_qs(request.body.decode()).items()})
        return answer(404, {"error": "not_found"})

    def imds(self, request: Request) -> Response:
        """The metadata service of a virtual machine, and on the path /MSI/auth that of a compute of Azure ML, which
        wants a secret header and calls the parameter `clientid` (azure-identity's AzureMLCredential)."""
        self.asked_for.append(request.query.get("client_id") or request.query.get("clientid"))
        if request.path == "/MSI/auth":
            return self._managed(request, "clientid") if request.headers.get("secret") else answer(401, {})
        if request.headers.get("metadata", "").lower() != "true":
            return answer(400, {"error": "invalid_request", "error_description": "Required metadata header missing"})
        return self._managed(request, "client_id")

    def _managed(self, request: Request, parameter: str) -> Response:
        wanted = request.query.get(parameter)
        for principal in self.principals.values():
            if principal.managed and wanted in (None, principal.client_id):
                token = self._mint(principal, request.query["resource"])
                lifetime = str(int(self.token_lifetime))
                expires = str(int(time.time() + self.token_lifetime))
                return answer(
                    200,
                    {"access_token": token, "expires_in": lifetime, "expires_on": expires, "token_type": "Bearer",
                     "resource": request.query["resource"], "client_id": principal.client_id},
                )  # fmt: skip
        return answer(400, {"error": "invalid_request", "error_description": "Identity not found"})

    def _token(self, form: dict[str, str]) -> Response:
        principal = self.principals.get(form.get("client_id", ""))
        if principal is None:
            return self._refusal(
                400,
                "unauthorized_client",
                f"AADSTS700016: Application with identifier '{form.get('client_id')}' was not found in the directory.",
            )
        if principal.expired_secret:
            return self._refusal(
                401, "invalid_client", "AADSTS7000222: The provided client secret keys for app are expired."
            )
        if not self._proven(principal, form):
            return self._refusal(401, "invalid_client", "AADSTS7000215: Invalid client secret provided.")
        token = self._mint(principal, form["scope"].removesuffix("/.default"))
        return answer(
            200,
            {"token_type": "Bearer", "expires_in": int(self.token_lifetime), "access_token": token,
             "ext_expires_in": int(self.token_lifetime)},
        )  # fmt: skip

    def _proven(self, principal: Principal, form: dict[str, str]) -> bool:
        if "client_secret" in form:
            return bool(principal.secret) and form["client_secret"] == principal.secret
        assertion = form.get("client_assertion", "")
        if principal.federated_token:
            return assertion == principal.federated_token
        if principal.certificate is None:
            return False
        public = principal.certificate.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        try:
            jwt.decode(assertion, public.decode(), algorithms=["RS256", "PS256"], options={"verify_aud": False})
        except jwt.PyJWTError:
            return False
        return True

    def _mint(self, principal: Principal, audience: str) -> str:
        now = int(time.time())
        claims = {
            "aud": audience,
            "iss": f"https://sts.windows.net/{self.tenant_id}/",
            "iat": now - 60,
            "nbf": now - 60,
            "exp": int(now + self.token_lifetime),
            "appid": principal.client_id,
            "oid": str(uuid.uuid5(uuid.NAMESPACE_URL, principal.client_id)),
            "tid": self.tenant_id,
            "ver": "1.0",
            "jti": uuid.uuid4().hex,
        }
        token = ".".join(map(_encoded, ({"typ": "JWT", "alg": "RS256"}, claims))) + ".c2lnbmF0dXJl"
        self.tokens.append(token)
        return token

    def _instance(self) -> dict[str, Any]:
        return {
            "tenant_discovery_endpoint": f"https://{LOGIN}/{self.tenant_id}/v2.0/.well-known/openid-configuration",
            "api-version": "1.1",
            "metadata": [
                {"preferred_network": LOGIN, "preferred_cache": "login.windows.net",
                 "aliases": [LOGIN, "login.windows.net", "login.microsoft.com", "sts.windows.net"]}
            ],
        }  # fmt: skip

    @staticmethod
    def _refusal(status: int, error: str, description: str) -> Response:
        return answer(
            status, {"error": error, "error_description": description, "error_codes": [], "trace_id": uuid.uuid4().hex}
        )


def _encoded(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def _claims(token: str) -> dict[str, Any]:
    middle = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
    return found
