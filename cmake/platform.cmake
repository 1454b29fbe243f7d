# Octavo runs on 64-bit Linux, x86-64 or aarch64; anything else is refused here, once and clearly.
string(TOLOWER "${CMAKE_SYSTEM_PROCESSOR}" octavo_processor)
if(octavo_processor MATCHES "^(x86_64|amd64)$")
  set(OCTAVO_ARCH x86_64)
elseif(octavo_processor MATCHES "^(aarch64|arm64)$")
  set(OCTAVO_ARCH aarch64)
else()
  set(OCTAVO_ARCH unsupported)
endif()

if(NOT CMAKE_SYSTEM_NAME STREQUAL "Linux" OR OCTAVO_ARCH STREQUAL "unsupported"
   OR NOT CMAKE_SIZEOF_VOID_P EQUAL 8)
  math(EXPR octavo_bits "8 * ${CMAKE_SIZEOF_VOID_P}")
  message(FATAL_ERROR
    "Octavo builds only on 64-bit Linux (x86-64 or aarch64); this is "
    "${CMAKE_SYSTEM_NAME} on ${CMAKE_SYSTEM_PROCESSOR}, ${octavo_bits}-bit. "
    "On Windows or macOS, use a Linux container or WSL2.")
endif()
