"""What datasets on disk share: facts about files, layouts, names, and how they are looked at."""
