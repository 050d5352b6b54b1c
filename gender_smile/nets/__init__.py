"""The paper's nets and VGG-Face's weights."""
