"""From the data sets' own folders to the LMDBs that Caffe trains on.

celeba.py and fotw.py read the data sets' tables, detections.py finds the faces once, crops.py cuts the paper's five
schemes, lmdb_writer.py writes what Caffe's Data layer reads, and build.py is the command that joins them.
"""
