"""YAML text to ``core.model`` values, with all problems of all files at once.

Order of reading: ``loader`` (text to nodes), ``schema`` (shape), ``parse`` (nodes to dataclasses),
``references`` and ``checks`` (meaning). Nothing past this package sees a dict of YAML.
"""
