"""Colors of all plots: those of Okabe and Ito (2008), which people with any color vision can tell apart."""

BLUE, ORANGE, GREEN, SKY_BLUE = "#0072B2", "#E69F00", "#009E73", "#56B4E9"
GRAY, GRID = "#8A8A8A", "#E6E6E6"
OURS, PAPER = BLUE, ORANGE  # our accuracies and the paper's
TRAINING, VALIDATION, ACCURACY = SKY_BLUE, ORANGE, GREEN  # of a training's curve
