// attributes.h: the attributes of a Python object as C arrays, each of exactly the type and shape
// asked for.
#pragma once
#include <Python.h>

#include <deque>
#include <initializer_list>
#include <string>

#include "bind/bindings.h"
#include "program/step.h"

namespace octavo {

// The arrays that `get` gave stay as they are, wherever the object's attributes may point later,
// until this goes.
class Attributes {
 public:
  explicit Attributes(nb::handle object) : object_(object) {}
  ~Attributes() {
    for (Py_buffer& view : held_) PyBuffer_Release(&view);
  }
  Attributes(const Attributes&) = delete;
  Attributes& operator=(const Attributes&) = delete;

  bool has(const char* name) const { return !object_.attr(name).is_none(); }

  int32_t number(const char* name) const {
    int32_t value;
    if (!nb::try_cast(nb::object(object_.attr(name)), value, false))
      throw nb::type_error((std::string(name) + ": expected an int32").c_str());
    return value;
  }

  template <class T>
  int64_t get(const char* name, T*& data, std::initializer_list<Dim> dims) {
    constexpr bool written = !std::is_const_v<T>;
    const Py_buffer& view = hold(name, written);
    const std::string type = plain(view.format);
    if (!is_type<std::remove_const_t<T>>(type) || view.itemsize != sizeof(T) ||
        view.ndim != (int)dims.size())
      throw nb::type_error(
          (std::string(name) + ": expected " + type_name<std::remove_const_t<T>>() + " of ndim " +
           std::to_string(dims.size()) + ", got \"" + type + "\" of " +
           std::to_string(view.itemsize) + " bytes, ndim " + std::to_string(view.ndim))
              .c_str());
    data = static_cast<T*>(view.buf);
    int64_t free = 0;
    const Py_ssize_t* got = view.shape;
    for (const Dim& dim : dims) {
      if (dim.size == kAny) free = *got;
      else if (dim.size != *got)
        refuse(std::string(name) + (*dim.name ? " " : "") + dim.name, dim.size, *got);
      ++got;
    }
    return free;
  }

 private:
  const Py_buffer& hold(const char* name, bool written) {
    Py_buffer& view = held_.emplace_back();
    const int flags = PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (written ? PyBUF_WRITABLE : 0);
    if (PyObject_GetBuffer(nb::object(object_.attr(name)).ptr(), &view, flags) != 0) {
      held_.pop_back();
      nb::python_error error;
      const std::string why = nb::str(error.value()).c_str();
      throw nb::type_error((std::string(name) + ": expected a C-contiguous " +
                            (written ? "writable " : "") + "array: " + why)
                               .c_str());
    }
    return view;
  }

  // A buffer's format without its field names and the marks of the native byte order.
  static std::string plain(const char* format) {
    std::string letters;
    bool name = false;
    for (const char* c = format == nullptr ? "B" : format; *c; ++c) {
      if (*c == ':') name = !name;
      else if (!name && *c != '=' && *c != '<' && *c != '@' && *c != '^') letters += *c;
    }
    return letters;
  }
  template <class T>
  static bool is_type(const std::string& letters) {
    if constexpr (std::is_same_v<T, int32_t>) return letters == "i";
    if constexpr (std::is_same_v<T, uint32_t>) return letters == "I";
    if constexpr (std::is_same_v<T, float>) return letters == "f";
    if constexpr (std::is_same_v<T, double>) return letters == "d";
    if constexpr (std::is_same_v<T, uint64_t>) return letters == "L" || letters == "Q";
    if constexpr (std::is_same_v<T, Edit>) return letters == "T{iff}";
  }
  template <class T>
  static const char* type_name() {
    if constexpr (std::is_same_v<T, int32_t>) return "int32";
    if constexpr (std::is_same_v<T, uint32_t>) return "uint32";
    if constexpr (std::is_same_v<T, float>) return "float32";
    if constexpr (std::is_same_v<T, double>) return "float64";
    if constexpr (std::is_same_v<T, uint64_t>) return "uint64";
    if constexpr (std::is_same_v<T, Edit>) return "octavo.batch.EDIT";
  }

  nb::handle object_;
  std::deque<Py_buffer> held_;
};

}  // namespace octavo
