"""The language that both sides speak: errors, topics, layout, plan, messages, the wire, codecs. Pure, no I/O."""
