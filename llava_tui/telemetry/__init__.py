"""The process that watches the machine. It never imports torch."""
