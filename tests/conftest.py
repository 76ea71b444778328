from jaxtyping import install_import_hook

install_import_hook("actioncast", "typechecker.check")  # before the first import of the package
