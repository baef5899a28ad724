"""A loopback Azure for tests and for trying the project by hand: no request leaves this machine.

server.py         one proxy: CONNECT to a real host name ends in TLS of our own, by our own CA
identity.py       Entra ID's token endpoint and the managed-identity endpoint
control_plane.py  Azure ML: workspaces, models, data, datastores, registries
compute.py        Azure ML: computes, environments, code
jobs.py           Azure ML: jobs, which run as processes of this machine
storage.py        blob storage: Azurite (npm) behind the same proxy
faults.py         what goes wrong on demand
loopback.py       all of it started together, with the environment that points a process at it
"""
