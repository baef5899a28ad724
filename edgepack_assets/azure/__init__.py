"""What speaks to Azure, shared by the Azure ML registry and the artefact store.

calls.py           every remote call: its time limit, its retries
answers.py         answers that are not Azure's: a proxy's page, a request to wait
errors.py          what Azure answers, as an error for the user
blob_container.py  moving bytes in pieces, in bounded memory
credential.py      the identity that signs in
clouds.py          the clouds of Azure
"""
