// The kernels in CUDA C++: nvcc -ptx -DQLNET_F32 (or QLNET_F16, QLNET_BF16) kernels.cu.
#include "cuda.h"
#include "floats.h"
#include "stem.h"
#include "depthwise.h"
#include "block.h"
#include "hardball.h"
