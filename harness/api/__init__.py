"""What a method, a dataset or a plug-in is written against: interfaces and vocabulary, no machinery."""
