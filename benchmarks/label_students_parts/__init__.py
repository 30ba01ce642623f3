"""Parts of `label_students.py`: codecs and views, data and teachers, students, picture."""
