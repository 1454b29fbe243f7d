# The compiler flags of every file, and which compiler family they are for.
# Never -march=native (a wheel must run elsewhere), never -ffast-math (NaN and order of operations are promised).
set(OCTAVO_SANITIZE "" CACHE STRING "Sanitizers for test builds: address, undefined, both with a comma, thread or empty")
set_property(CACHE OCTAVO_SANITIZE PROPERTY STRINGS "" address undefined address,undefined thread)
option(OCTAVO_WERROR "Treat compiler warnings as errors" OFF)

# zig calls itself Clang, but spells CPU features its own way and defaults to the build machine's CPU.
execute_process(COMMAND "${CMAKE_CXX_COMPILER}" ${CMAKE_CXX_COMPILER_ARG1} --version
                OUTPUT_VARIABLE octavo_compiler_version ERROR_QUIET)
if(octavo_compiler_version MATCHES "zig")
  set(OCTAVO_COMPILER zig)
elseif(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_GREATER_EQUAL 12)
  set(OCTAVO_COMPILER gnu)
elseif(CMAKE_CXX_COMPILER_ID STREQUAL "Clang" AND CMAKE_CXX_COMPILER_VERSION VERSION_GREATER_EQUAL 15)
  set(OCTAVO_COMPILER clang)
else()
  message(FATAL_ERROR
    "Octavo needs gcc >= 12, clang >= 15 or zig's clang; ${CMAKE_CXX_COMPILER} is "
    "${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}. Set CXX to another compiler.")
endif()

set(CMAKE_CXX_FLAGS_RELEASE "-O3 -DNDEBUG")
add_library(octavo_flags INTERFACE)
target_compile_options(octavo_flags INTERFACE
  -fno-math-errno -ffp-contract=off -pthread -Wall -Wextra -Wno-psabi)
target_link_options(octavo_flags INTERFACE -pthread)
if(OCTAVO_WERROR)
  target_compile_options(octavo_flags INTERFACE -Werror)
endif()
if(OCTAVO_COMPILER STREQUAL "zig" AND NOT OCTAVO_SANITIZE STREQUAL "undefined")
  target_compile_options(octavo_flags INTERFACE -fno-sanitize=undefined)
endif()

if(OCTAVO_SANITIZE)
  if(NOT OCTAVO_SANITIZE MATCHES "^(address|undefined|address,undefined|thread)$")
    message(FATAL_ERROR "OCTAVO_SANITIZE=${OCTAVO_SANITIZE}: "
            "expected address, undefined, address,undefined or thread")
  endif()
  # -O1: at -O3 the instrumented kernels take many minutes to compile.
  target_compile_options(octavo_flags INTERFACE
    -fsanitize=${OCTAVO_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer -g1 -O1)
  target_link_options(octavo_flags INTERFACE -fsanitize=${OCTAVO_SANITIZE})
endif()
