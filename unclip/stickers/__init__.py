"""The bundled model's domain: scenes of sticker-like objects, their captions, and how to recognise them."""
