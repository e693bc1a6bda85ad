"""The Open Inference Protocol v2: reading what is asked, writing what is answered."""
