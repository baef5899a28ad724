"""Which model versions are packaged, and when: what a sensor remembers and what it requests. No Dagster here.

decide.py            one tick, from a state to the next one and its requests
many_types.py        one tick that looks at many model types
tick.py              what the steps of a tick share
find_versions.py     step 1: new versions in the registry
follow_runs.py       step 2: runs that were requested earlier
first_runs.py        step 3: first runs of approved and pending versions
cursor.py            the state, as the text of the sensor's cursor
handled_versions.py  the part of the state that grows with the registry
run_requests.py      the rules, requests and runs
"""
