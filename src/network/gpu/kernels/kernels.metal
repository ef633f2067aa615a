// The kernels in the Metal Shading Language. The source that Metal compiles is this with its files in place.
#include "metal.h"
#include "floats.h"
#include "stem.h"
#include "depthwise.h"
#include "block.h"
#include "hardball.h"
