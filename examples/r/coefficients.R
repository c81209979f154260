# A logistic regression on one organization's data, with nothing but R itself and jsonlite.
given <- Sys.getenv("FOLKMOOT_INPUT")
taken <- Sys.getenv("FOLKMOOT_OUTPUT")

fail <- function(text) {
  writeLines(text, file.path(taken, "failure.txt"))
  quit(status = 1)
}

arguments <- jsonlite::read_json(file.path(given, "arguments.json"), simplifyVector = TRUE)
label <- jsonlite::read_json(file.path(given, "context.json"), simplifyVector = TRUE)$labels[[1]]
rows <- read.csv(file.path(given, "tables", paste0(label, ".csv")), check.names = FALSE)
rows <- rows[complete.cases(rows), ]

outcomes <- sort(unique(rows[[arguments$outcome]]))
if (length(outcomes) != 2) fail(paste(arguments$outcome, "needs two values, it has", length(outcomes)))
rows[[arguments$outcome]] <- as.integer(rows[[arguments$outcome]] == outcomes[2])

model <- glm(reformulate(sprintf("`%s`", arguments$covariates), arguments$outcome), binomial, rows)
fitted <- coef(summary(model))
result <- list(
  terms = gsub("`", "", rownames(fitted)),
  coefficients = unname(fitted[, "Estimate"]),
  standard_errors = unname(fitted[, "Std. Error"]),
  rows = nrow(rows)
)
jsonlite::write_json(result, file.path(taken, "result.json"), auto_unbox = TRUE, digits = NA)
