"""`make azure-dev`: run the loopback Azure until interrupted, and print what points the project at it."""

from __future__ import annotations

import os
import shlex
import signal
import threading

import yaml

from edgepack_assets_tests.azure.loopback import running
from edgepack_assets_tests.azure.storage import missing


def main() -> int:
    if reason := missing():
        print(reason)
        return 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that Azurite ends with us
    with running() as azure:
        azure.proxy.upstream = os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy") or ""
        azure.proxy.passes_on = True
        print("# A loopback Azure is running. In the shell that shall use it:\n")
        for name, value in azure.environ.items():
            if name != "HTTP_PROXY":  # for a machine's managed identity only; a package index may need its own
                print(f"export {name}={shlex.quote(value)}")
        host = azure.storage.host.replace(".blob.", ".dfs.")
        section, artefacts = azure.registry_section("workspace"), f"abfs://{azure.azure_ml.container}@{host}/artefacts"
        print(f"export AZURE_SUBSCRIPTION_ID={shlex.quote(section['subscription_id'])}")
        print(f"export EDGEPACK_ARTEFACTS={shlex.quote(artefacts)}")
        for kind in ("workspace", "registry"):
            print(f"\n# edgepack.yaml, for the {kind}:")
            print(yaml.safe_dump({"registry": azure.registry_section(kind)}, sort_keys=False), end="")
        print("\n# Artefacts there too:")
        print(f"artefacts: {{root: {artefacts}}}")
        azure.azure_ml.compute.add_cluster("edge-cpu")
        print("\n# Runs as jobs, which are processes of this machine, on a cluster that is there:")
        print("compute: {type: azure_ml, cluster_name: edge-cpu}")
        print("\n# Storage, for clients of storage alone:")
        print(f"export AZURE_STORAGE_CONNECTION_STRING={shlex.quote(azure.storage.connection_string)}")
        print("\n# Ctrl-C ends it, and everything in it is gone.", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print("\nended")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
