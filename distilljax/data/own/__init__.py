"""Data of the user's own: folders of images, tables with image columns, .npz files.

    load("pets,size=32,test_share=0.2")       # a folder, one subfolder a class
    load("digits.csv,label=digit,test_share=0.2")
    load("downloads/beans,size=32,test=validation")   # a Hugging Face set on disk
    load("pneumoniamnist.npz,train=train+validation")

`request` reads the options that follow the path; `folders`, `tables` and `arrays` find the
images and labels of each split; `images` decodes, resizes and converts; `read` chooses,
divides and puts together. What was done to the images stands in the notes.
"""

from distilljax.data.own.read import Own, read
from distilljax.data.own.request import OPTIONS, Request, parse

__all__ = ["OPTIONS", "Own", "Request", "parse", "read"]
