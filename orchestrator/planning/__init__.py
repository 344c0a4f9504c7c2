"""From the model to a plan: drafts → bound steps → order → digest. All pure; opens no socket."""
