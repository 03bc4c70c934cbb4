"""The boundary on disk: what measures writes here, what looks reads here, and nothing else passes between them."""
