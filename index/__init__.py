"""Shards to answers: the rule, the search, the scan. The room of faiss."""
