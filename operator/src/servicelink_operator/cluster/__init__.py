"""The only code that speaks to the API server: kinds, requests, informers, guarded reads, the Lease, first checks.

Everything here deals in the API's own JSON as dicts; parsing them into types is the core's business. What is answered
from an informer's cache is shared and must not be changed by its reader.
"""
