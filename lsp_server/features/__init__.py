"""Protocol handlers, one small file a subject: convert in, call the core, convert out."""
