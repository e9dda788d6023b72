"""Parts of an evaluation that can be done anywhere: cells addressed by content, answers in files of each worker."""
