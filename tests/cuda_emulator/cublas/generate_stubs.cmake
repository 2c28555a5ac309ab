# Writes OUTPUT: a stub for every function that the real LIBRARY exports and the OBJECTS do not define. Without the real library: no stubs.
# Functions begin with ROOM, the folder whose stub.h says what a stub does.
# cmake -DNM=nm -DROOM=cublas -DLIBRARY=libcublas.so.13 -DOBJECTS=a.o;b.o -DOUTPUT=stubs.cpp -P generate_stubs.cmake

function(functions_of result)
  execute_process(COMMAND ${NM} ${ARGN} OUTPUT_VARIABLE listing RESULT_VARIABLE failed)
  if(failed)
    message(FATAL_ERROR "${NM} ${ARGN}: ${failed}")
  endif()
  string(REGEX MATCHALL " T ${ROOM}[A-Za-z0-9_]*" names "${listing}")
  list(TRANSFORM names REPLACE "^ T " "")
  set(${result} "${names}" PARENT_SCOPE)
endfunction()

set(stubs "#include \"${ROOM}/stub.h\"\n\n")
if(EXISTS "${LIBRARY}")
  functions_of(wanted -D --defined-only ${LIBRARY})
  functions_of(present ${OBJECTS})
  list(REMOVE_ITEM wanted ${present})
  foreach(name IN LISTS wanted)
    string(APPEND stubs "extern \"C\" int ${name}() { return emulator_${ROOM}_stub(\"${name}\"); }\n")
  endforeach()
endif()
file(WRITE "${OUTPUT}" "${stubs}")
