"""The ways in and out: metadata, wire format, ZMQ publisher and listener, SigMF recordings. Works without GNU Radio."""
