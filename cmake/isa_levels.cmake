# ISA levels: csrc/kernels/*.cpp is compiled once per level, with -DOCTAVO_ISA=<level> and that level's flags.
# A level is a list of CPU features; each compiler family spells the list in its own way.
# Each level also defines OCTAVO_HAVE_<level>=1 for the baseline sources, so that dispatch.cpp knows which exist.
# -DOCTAVO_ISA_LEVELS=base builds fewer of them, for a quick look at a change.
if(OCTAVO_ARCH STREQUAL "x86_64")
  set(octavo_levels base avx2 avxvnni avx512 avx512bf16)
  set(octavo_features_base "")
  set(octavo_features_avx2 avx2 fma f16c bmi2)
  set(octavo_features_avxvnni ${octavo_features_avx2} avxvnni)
  set(octavo_features_avx512 avx512f avx512bw avx512dq avx512vl avx512vnni avx512vbmi fma f16c bmi2)
  set(octavo_features_avx512bf16 ${octavo_features_avx512} avx512bf16)
else()
  # aarch64 has only its baseline NEON so far; neon_dotprod and neon_i8mm become levels when they have kernels.
  set(octavo_levels base)
  set(octavo_features_base "")
endif()
if(NOT OCTAVO_ISA_LEVELS)
  set(OCTAVO_ISA_LEVELS ${octavo_levels})
endif()

# gcc 12 has no -mtune=znver4; znver3 schedules Zen 4 well enough and changes no result.
set(octavo_tuning_avx512 -mprefer-vector-width=512 -mtune=znver3)
set(octavo_tuning_avx512bf16 ${octavo_tuning_avx512})

function(octavo_isa_flags level out)
  set(features ${octavo_features_${level}})
  if(OCTAVO_COMPILER STREQUAL "zig")
    # Without -mcpu zig compiles for the machine it runs on.
    if(OCTAVO_ARCH STREQUAL "x86_64")
      set(flags "-mcpu=x86_64")
    else()
      set(flags "-mcpu=generic")
    endif()
    foreach(feature IN LISTS features)
      string(APPEND flags "+${feature}")
    endforeach()
    if(level MATCHES "^avx512")
      list(APPEND flags -mprefer-vector-width=512)
    endif()
  else()
    set(flags ${octavo_tuning_${level}})
    foreach(feature IN LISTS features)
      list(APPEND flags "-m${feature}")
    endforeach()
  endif()
  set(${out} ${flags} PARENT_SCOPE)
endfunction()

# gcc 12's own AVX-512 headers trip these two warnings (its bug 105593, fixed in 13).
add_library(octavo_kernel_warnings INTERFACE)
if(OCTAVO_COMPILER STREQUAL "gnu" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  target_compile_options(octavo_kernel_warnings INTERFACE
    -Wno-uninitialized -Wno-maybe-uninitialized)
endif()

octavo_isa_flags(base octavo_base_flags)
add_library(octavo_baseline INTERFACE)
target_compile_options(octavo_baseline INTERFACE ${octavo_base_flags})

# Objects, not archives: the module must hold every level, and only the function tables are named outside.
function(octavo_add_isa_levels module sources)
  foreach(level IN LISTS OCTAVO_ISA_LEVELS)
    target_compile_definitions(${module} PRIVATE "OCTAVO_HAVE_${level}=1")
    if(sources)
      octavo_isa_flags(${level} level_flags)
      add_library(kernels_${level} OBJECT ${sources})
      target_compile_options(kernels_${level} PRIVATE ${level_flags})
      target_compile_definitions(kernels_${level} PRIVATE "OCTAVO_ISA=${level}" "OCTAVO_ISA_${level}=1")
      target_include_directories(kernels_${level} PRIVATE "${CMAKE_CURRENT_SOURCE_DIR}/csrc")
      target_link_libraries(kernels_${level} PRIVATE octavo_flags octavo_kernel_warnings)
      target_link_libraries(${module} PRIVATE kernels_${level})
    endif()
  endforeach()
endfunction()
