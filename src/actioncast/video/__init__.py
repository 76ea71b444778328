"""From video files to tokens: decoding by time, framing, backbones, and a cache of their features.

Files need the extra `video`, Hugging Face backbones the extra `llm`.
"""
